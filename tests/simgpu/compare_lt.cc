// Holds the substitute's descriptors against the real cuBLASLt's, which needs no device for them:
// the same attributes, sizes, defaults and codes, the same words for statuses.
//
//   compare_lt REAL SUBSTITUTE
#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

namespace {

int differences = 0;

void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (found == nullptr) {
    std::printf("%s is missing\n", name);
    ++differences;
  }
  return found;
}

#define FUNCTION(library, name) reinterpret_cast<decltype(&name)>(symbol(library, #name))

// What a library answers to one attribute and size.
struct Answer {
  int got;
  size_t written;
  unsigned char value[16];
  int set;

  bool operator==(const Answer &other) const {
    return got == other.got && written == other.written && set == other.set &&
           std::memcmp(value, other.value, sizeof value) == 0;
  }
};

template <typename Object, typename Attribute, typename Get, typename Set>
Answer ask(Object object, Attribute attribute, size_t size, Get get, Set set) {
  Answer answer = {};
  answer.got = get(object, attribute, size == 0 ? nullptr : answer.value, size, &answer.written);
  answer.set = set(object, attribute, answer.value, size);
  return answer;
}

// Every attribute up to `last` with every size, on an object that each library has made.
template <typename Object, typename Attribute, typename Get, typename Set>
void compare(const char *what, int last, const Object (&objects)[2], const Get (&get)[2],
             const Set (&set)[2]) {
  for (int attribute = -1; attribute <= last; ++attribute) {
    for (size_t size = 0; size <= 16; ++size) {
      const Attribute named = static_cast<Attribute>(attribute);
      const Answer real = ask(objects[0], named, size, get[0], set[0]);
      const Answer ours = ask(objects[1], named, size, get[1], set[1]);
      if (!(real == ours)) {
        std::printf("%s attribute %d, %zu bytes: get %d, set %d, really %d, %d\n", what, attribute,
                    size, ours.got, ours.set, real.got, real.set);
        ++differences;
      }
    }
  }
}

void compare_layouts(void *const libraries[2]) {
  cublasLtMatrixLayout_t layouts[2];
  decltype(&cublasLtMatrixLayoutGetAttribute) get[2];
  decltype(&cublasLtMatrixLayoutSetAttribute) set[2];
  for (int i = 0; i < 2; ++i) {
    FUNCTION(libraries[i], cublasLtMatrixLayoutCreate)(&layouts[i], CUDA_R_32F, 5, 3, 8);
    get[i] = FUNCTION(libraries[i], cublasLtMatrixLayoutGetAttribute);
    set[i] = FUNCTION(libraries[i], cublasLtMatrixLayoutSetAttribute);
  }
  compare<cublasLtMatrixLayout_t, cublasLtMatrixLayoutAttribute_t>("layout", 16, layouts, get, set);
}

void compare_descs(void *const libraries[2]) {
  cublasLtMatmulDesc_t descs[2];
  decltype(&cublasLtMatmulDescGetAttribute) get[2];
  decltype(&cublasLtMatmulDescSetAttribute) set[2];
  for (int i = 0; i < 2; ++i) {
    FUNCTION(libraries[i], cublasLtMatmulDescCreate)(&descs[i], CUBLAS_COMPUTE_32F, CUDA_R_32F);
    get[i] = FUNCTION(libraries[i], cublasLtMatmulDescGetAttribute);
    set[i] = FUNCTION(libraries[i], cublasLtMatmulDescSetAttribute);
  }
  compare<cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t>("product", 48, descs, get, set);
}

void compare_preferences(void *const libraries[2]) {
  cublasLtMatmulPreference_t preferences[2];
  decltype(&cublasLtMatmulPreferenceGetAttribute) get[2];
  decltype(&cublasLtMatmulPreferenceSetAttribute) set[2];
  for (int i = 0; i < 2; ++i) {
    FUNCTION(libraries[i], cublasLtMatmulPreferenceCreate)(&preferences[i]);
    get[i] = FUNCTION(libraries[i], cublasLtMatmulPreferenceGetAttribute);
    set[i] = FUNCTION(libraries[i], cublasLtMatmulPreferenceSetAttribute);
  }
  compare<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t>("preference", 20,
                                                                            preferences, get, set);
}

void compare_words(void *const libraries[2]) {
  for (int status = -1; status <= 20; ++status) {
    const char *names[2], *texts[2];
    for (int i = 0; i < 2; ++i) {
      const cublasStatus_t code = static_cast<cublasStatus_t>(status);
      names[i] = FUNCTION(libraries[i], cublasLtGetStatusName)(code);
      texts[i] = FUNCTION(libraries[i], cublasLtGetStatusString)(code);
    }
    if (std::strcmp(names[0], names[1]) != 0 || std::strcmp(texts[0], texts[1]) != 0) {
      std::printf("status %d: %s, %s, really %s, %s\n", status, names[1], texts[1], names[0],
                  texts[0]);
      ++differences;
    }
  }
}

} // namespace

int main(int count, char **arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: compare_lt REAL SUBSTITUTE\n");
    return 2;
  }
  void *libraries[2];
  for (int i = 0; i < 2; ++i) {
    libraries[i] = dlopen(arguments[1 + i], RTLD_NOW | RTLD_LOCAL);
    if (libraries[i] == nullptr) {
      std::fprintf(stderr, "%s\n", dlerror());
      return 2;
    }
  }
  compare_layouts(libraries);
  compare_descs(libraries);
  compare_preferences(libraries);
  compare_words(libraries);
  return differences == 0 ? 0 : 1;
}
