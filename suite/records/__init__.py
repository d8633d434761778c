"""TFRecords: pictures in, batches out; the two preprocessings; which split a picture belongs to."""
