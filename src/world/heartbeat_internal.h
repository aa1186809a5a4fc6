/* What heartbeat.c and meeting.c share: kinds of messages and what they hold. */
#ifndef LKS_WORLD_HEARTBEAT_INTERNAL_H
#define LKS_WORLD_HEARTBEAT_INTERNAL_H

#include "world/heartbeat.h"

typedef enum lks_message {
  LKS_MESSAGE_HELLO = 0x4c4b5301, /* lks_hello, by the caller */
  LKS_MESSAGE_WELCOME,            /* nothing, by the hub */
  LKS_MESSAGE_PULSE,              /* lks_pulse */
  LKS_MESSAGE_FAILURE,            /* lks_error: of the sender, not agreed on */
  LKS_MESSAGE_RULING,             /* lks_error: the run ends with it */
  LKS_MESSAGE_RULING_CUT,         /* the same, and a host is cut off */
  LKS_MESSAGE_FAREWELL /* nothing: the sender's work is done, and its end will mean nothing */
} lks_message;

typedef struct lks_hello {
  unsigned char token[LKS_TOKEN];
  int32_t rank;
} lks_hello;

#endif
