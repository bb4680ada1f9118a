"""Long clips: what each kind of windows does at its borders, along the clip, and costs."""
