"""One dual-stream block class per family, rewritten so that text and image share the image branch's
weights.
"""
