"""What `make bench-train` and its tuning run: arms, sizes and epochs, the same for every arm."""

from __future__ import annotations

ARMS = {
    "full": "full fine-tuning",
    "lora": "LoRA r=8 (PEFT)",
    "probe": "linear probe",
    "sparse": "sparse delta 1 %",
}
EPOCHS = {"images": 8, "texts": 15}
FEW = (16, 64, 256)  # images per class
FEW_EPOCHS = {16: 24, 64: 12, 256: 8}
DENSITY = 0.01
