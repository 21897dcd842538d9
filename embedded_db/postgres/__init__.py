"""PostgreSQL with pgvector: connections, the schema, filters, full text and the ranking of vectors."""
