"""One run: launch, settings, record, trainers, asking what it left."""
