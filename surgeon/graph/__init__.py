"""The core graph utility: sites, traces, roles, edits and skeletons."""
