# Values of a request that the server adds to the context of an event: the user agent, and the values
# that a source fills in.

from pixelfast.event.decoder cimport Event
from pixelfast.event.keys cimport RootField
from pixelfast.event.slices cimport Slice, before, stripped
from pixelfast.event.strings cimport trim
from pixelfast.event.template cimport TemplateSlot


cdef inline Slice first_language(Slice languages) noexcept nogil:
    # Return the first language of an Accept-Language header, or an empty slice (RFC 9110 sections
    # 5.6.1.2 and 12.5.4).
    cdef Slice element, language
    while languages.length:
        element = before(c',', languages)
        language = stripped(before(c';', element)) if element.length else element
        if language.length and not (language.length == 1 and language.at[0] == c'*'):
            return language
        if element.length == languages.length:
            break
        languages.at += element.length + 1
        languages.length -= element.length + 1
    return Slice(NULL, 0)


cdef inline int fill_in(
    Event event, object user_agent, object address, object locale, object referer
) except -1:
    # Add values of the request to the context. Each is a string, a slot, or None if it is missing
    # or not wanted.
    cdef list fields = event.fields
    cdef dict context = fields[RootField.CONTEXT]
    if context is None:
        context = {}
    if user_agent is not None and _is_absent(context, "userAgent"):
        context["userAgent"] = user_agent
    if address is not None and _is_absent(context, "ip"):
        context["ip"] = address
    if locale is not None and _is_absent(context, "locale"):
        context["locale"] = locale
    if referer is not None:
        if _is_absent(context, "page"):
            context["page"] = {}
        page = context["page"]
        if type(page) is dict and _is_absent(<dict>page, "url"):
            page["url"] = referer
    if context:
        fields[RootField.CONTEXT] = context
    return 0


cdef inline bint _is_absent(dict members, str name):
    # Return whether a member is missing or blank: a blank parameter does not override a value that
    # the server has.
    given = members.get(name, "")
    if type(given) is TemplateSlot:
        (<TemplateSlot>given).is_filled = True  # the template leaves a blank value to the decoder
        return False
    return type(given) is str and not trim(<str>given)
