"""What `make bench-train` measures: sparse adapters beside PEFT's LoRA, full fine-tuning and a linear probe."""
