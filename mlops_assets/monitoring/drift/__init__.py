"""Whether what production asks and gets still resembles what the release was trained on."""
