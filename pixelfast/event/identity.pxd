cpdef str trim(str text)
cpdef str trim_anonymous_id(str text)
