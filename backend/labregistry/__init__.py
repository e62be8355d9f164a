"""A small registry of our own, for labs, demonstrations and tests.

The pull and push parts of the OCI distribution specification 1.1, served from a folder by one
process.  It is no production registry: one process serves a folder, every user may read and
write everything, and nothing is synced to disk before a push is answered.

* ``wire``     HTTP/1.1 on asyncio streams; h11 does the parsing
* ``answers``  answers, and the errors in the specification's JSON
* ``storage``  blobs, manifests, tags and uploads in a folder
* ``access``   password file, Basic and Bearer
* ``service``  routes and end points
* ``tls``      a certificate made on the spot
* ``server``   starts and stops it all
"""
