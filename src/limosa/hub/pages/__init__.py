"""The hub's web page: what the store knows, as HTML and SVG.

Everything here is a function of its arguments; the only files read are the package's own templates
and static files. :mod:`~limosa.hub.pages.views` says what a page shows,
:mod:`~limosa.hub.pages.render` makes it.
"""
