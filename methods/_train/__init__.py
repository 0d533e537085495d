"""The trainers' engine: options, loop, texts and anchors that sft, mixsd, opsd and pd share."""
