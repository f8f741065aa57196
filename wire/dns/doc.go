// Package dns walks over DNS messages (RFC 1035 §4) whose sender may be lying:
// no function reads outside the message, follows a compression pointer, or keeps
// anything of the message.
package dns
