# cmake -DPROGRAM=... -DPAGE=docs/options.md -P compare_page.cmake: fails unless the page is what
# `lockstep options --markdown` prints.
if(NOT EXISTS ${PAGE})
  message(FATAL_ERROR "no ${PAGE}; make it: lockstep options --markdown >docs/options.md")
endif()
execute_process(COMMAND ${PROGRAM} options --markdown OUTPUT_VARIABLE _printed
                ERROR_VARIABLE _errors RESULT_VARIABLE _code)
if(NOT _code EQUAL 0)
  message(FATAL_ERROR "lockstep options --markdown ended with ${_code}: ${_errors}")
endif()
string(SHA256 _now "${_printed}")
file(SHA256 ${PAGE} _then)
if(NOT _now STREQUAL _then)
  message(FATAL_ERROR "${PAGE} is not what the program prints; "
                      "make it anew: lockstep options --markdown >docs/options.md")
endif()
