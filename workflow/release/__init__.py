"""The archive of a release, with its bill of materials: `make release`."""
