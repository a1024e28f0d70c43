// Package transport gives protocols their connections: listeners, sniffing,
// read buffers, batched writes and timers, one room for all protocols. It
// knows bytes and handlers, and nothing of frames.
//
//	accept -> sniff -> reader: socket -> input -> Handler.Receive -> core
//	                     |
//	                 idle: it holds no buffer and nobody writes
//	                     |
//	           Link.Wake -> flush list -> flusher: Outbox.Take -> Handler.Deliver -> socket
//	                                                 wheel -> Handler.Tick
//
// Each connection has one goroutine, its reader, which also begins and ends
// it. What is to be written is done in turns, and a turn has one owner at a
// time, so Deliver and Tick never run beside each other. The owner is
//
//	a flusher    of the small pool that serves all connections,
//	the reader   for what its own Receive has caused, before it waits again,
//	a drain      a goroutine that lives only while the socket is full.
//
// A flusher never waits for a socket. While a drain does, events stay in the
// outbox, where core bounds them; a reader who takes nothing for WriteTimeout
// is cut off.
package transport
