"""What commands read and write: records, caches, locks, names of files."""
