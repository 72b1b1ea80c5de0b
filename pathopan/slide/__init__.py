"""Open a slide and read its pixels at an mpp.

>>> from pathopan.slide import open_slide
>>> with open_slide("biopsy.svs") as slide:                            # doctest: +SKIP
...     pixels = slide.read(Window(0, 0, 512, 512), mpp=0.5)

Level 0 of every slide starts at the corner of its scanned bounds, which is where QuPath has its origin. Micrometres per
pixel come from the file or from the user and are never guessed. Label and macro pictures are never read.
"""

from pathopan.slide.array import ArraySlide
from pathopan.slide.base import MAX_UPSAMPLING, RgbImage, Slide, SlideInfo, check_mpp, read_overview
from pathopan.slide.open import open_slide

__all__ = [
    "MAX_UPSAMPLING",
    "ArraySlide",
    "RgbImage",
    "Slide",
    "SlideInfo",
    "check_mpp",
    "open_slide",
    "read_overview",
]
