"""The page that shows what a job came to: one HTML file that needs no network and no script."""
