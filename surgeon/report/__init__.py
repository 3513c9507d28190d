"""What people look at: plans as diffs, trees, lists, errors. Nothing here imports torch to be imported."""
