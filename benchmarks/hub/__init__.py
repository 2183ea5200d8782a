"""What a hub delivers, plans and serves, beside what it could: files, gzip, nginx, an S3."""
