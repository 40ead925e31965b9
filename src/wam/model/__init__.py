"""The network: tensors in, tensors out. No files, no robots, no devices chosen."""
