"""What is not collected."""

# only litgpt reads it, whose class it extends, and litgpt need not be here
collect_ignore = ["quality/litgpt_rows.py"]
