"""What people look at: pictures, tables, plots and pages of results."""
