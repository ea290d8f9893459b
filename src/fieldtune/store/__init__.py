"""The database: tables, migrations, transactions. SQLite in a file, or PostgreSQL; needs `fieldtune[store]`."""
