"""The report: everything a reader wants to look at, as one file that needs nothing else.

`gather` reads runs and stores, each other module draws one question as a `parts.Section`, and `page` and `plain` write
the sections as HTML or as text.
"""
