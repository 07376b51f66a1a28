"""Reports that people read: one description of a report, written as Markdown and as one self-contained HTML page."""
