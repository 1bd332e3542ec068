"""What an analysis found, as a record, files, figures and pages."""
