"""What the documentation site has beside the files of docs/: generated pages, and links that lead
to pages of the site.
"""
