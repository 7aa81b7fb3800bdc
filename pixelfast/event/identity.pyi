def trim(text: str) -> str:
    """Remove white space and invisible characters at both ends.

    These are the Unicode categories Cc, Cf, Zs, Zl and Zp.

    >>> trim("\\u00a0a b\\u200b\\ufeff")
    'a b'
    """

def trim_anonymous_id(text: str) -> str:
    """Trim, take off one pair of double quotes (AMP sends them), and trim again.

    >>> trim_anonymous_id(' "amp-Xy" ')
    'amp-Xy'
    """
