// Package coretest is a broker in a box: a real core.Broker whose clock stands
// until it is moved, whose shards run when they are told to, and whose disk can
// be held, fail, be full and lose power. Nothing in it happens by itself, so a
// history that was seen once is seen again.
//
//	Box.Advance -> Clock, Broker.Tick --\
//	                                     > Broker.Step until nobody has work
//	Box.Settle -------------------------/
//	Box.PowerOff, PowerOn -> Disk.Cut, core.New on what was durable
//
// It knows no protocol: protocols/protocoltest puts those in front of it.
package coretest
