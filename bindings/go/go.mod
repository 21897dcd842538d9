module akidb-mlx/bindings/go

go 1.24
