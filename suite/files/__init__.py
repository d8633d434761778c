"""Files and folders that are whole, checked and harmless."""
