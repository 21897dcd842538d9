package selection_test

import (
	"fmt"
	"log"

	selection "akidb-mlx/bindings/go"
)

func ExampleKNNFromJSON() {
	knn, err := selection.KNNFromJSON(`{"algorithm": "knn", "trained": true, "k": 3,
		"embeddings": [[0.9, 0.1], [0.8, 0.3], [0.1, 0.9]], "labels": ["small", "small", "large"]}`)
	if err != nil {
		log.Fatal(err)
	}
	defer knn.Close()
	label, err := knn.Select([]float64{0.7, 0.2})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(label)
	// Output: small
}
