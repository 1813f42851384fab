"""Adapters to and from the folders of Hugging Face PEFT, which is not needed for it: they are plain files.

``adapter_config.json`` and ``adapter_model.safetensors`` are read and written here. `lora` becomes a LoRA folder,
`delta` a SHiRA folder, as PEFT 0.18 and later load them. Names in a folder are those of the module that
`peft.PeftModel` wraps: the plain Hugging Face model (AutoModel, or AutoModelForCausalLM) where the network has one
as its backbone, else the network itself.
"""

from fedsparse.adapters.interchange.from_peft import import_peft
from fedsparse.adapters.interchange.to_peft import export_peft

__all__ = ["export_peft", "import_peft"]
