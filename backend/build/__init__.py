"""Images from Dockerfiles: several builders behind one protocol, one kind of events, one result.

``request`` says what to build, ``detect`` finds who can, ``image`` does it from the request to
the OCI-SIF.  A builder (``buildah``, ``docker``, ``buildkit``) runs the instructions, tells
about them in events, and leaves the image as an OCI layout or archive, which then goes the way
of a pull.
"""
