/* A library that can be loaded and holds nothing of use. */
int fake_driver_is_loaded(void);

int fake_driver_is_loaded(void) {
  return 1;
}
