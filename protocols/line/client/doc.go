// Package client speaks Godwit's line protocol: it is what the command line
// and the examples publish and read with.
//
//	c, err := client.Dial(ctx, "127.0.0.1:7070", client.Options{Client: "billing"})
//	err = c.Publish(ctx, client.Message{Dest: "q/orders", Body: []byte("hello")}) // nil: the disk has it
//
//	sub, err := c.Subscribe(ctx, "q/orders", client.SubOptions{})
//	for d, err := range sub.All(ctx) {
//		// ...
//		d.Ack()
//	}
//
// A Client has two goroutines, one that reads and one that writes, and both
// end with Close. All methods may be called by any goroutine. A publisher that
// is quicker than the broker waits in Send; a subscription with acks holds its
// window at most, and a live one drops what finds no room, and counts it.
//
// A Client does not connect again by itself: when Done is closed, Err says
// why, and each publish that was not confirmed by then has that error. Sending
// those again may store them twice.
package client
