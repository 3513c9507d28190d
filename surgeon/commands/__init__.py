"""The commands, one file for each thing that people come for."""
