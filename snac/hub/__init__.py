"""Where models come from: names, folders, the Hugging Face Hub, and the files of a checkpoint."""
