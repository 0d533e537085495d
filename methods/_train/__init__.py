"""The trainers' engine: options, loop, texts and anchors that sft, mixsd and opsd share."""
