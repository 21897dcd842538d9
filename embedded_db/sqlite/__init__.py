"""All that is particular to SQLite: connections and their errors, the schema, and the SQL of JSON and of full text."""
