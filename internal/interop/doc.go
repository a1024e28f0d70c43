// Package interop holds tests in which stock clients, unchanged, talk to the
// real program: mosquitto_pub and mosquitto_sub, go-stomp, stomp.py, paho and
// nc. A tool that is not installed skips its tests, except where GODWIT_INTEROP
// is set: there it must be there.
package interop
