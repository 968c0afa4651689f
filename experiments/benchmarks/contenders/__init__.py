"""The programs that are compared: each module builds a `base.Trainer`."""
