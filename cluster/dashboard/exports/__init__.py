"""What leaves the dashboard: tables and reports."""
