"""Questions that were answered once, each with the script that answers it again."""
