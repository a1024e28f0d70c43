package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/eclipse/paho.golang/paho"
)

// publish is the machines' part: n readings over MQTT 5 with QoS 1, each
// confirmed before the next. A confirmed reading is in the queue, on the disk;
// the machine may forget it.
func publish(ctx context.Context, addr string, n int) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	client := paho.NewClient(paho.ClientConfig{ClientID: "plant", Conn: conn})
	if _, err := client.Connect(ctx, &paho.Connect{ClientID: "plant", CleanStart: true, KeepAlive: 30}); err != nil {
		return errors.Join(err, conn.Close())
	}
	for i := range n {
		_, err := client.Publish(ctx, &paho.Publish{
			Topic:      fmt.Sprintf("plant/%d/temp", i%5),
			QoS:        1,
			Payload:    []byte(reading(i)),
			Properties: &paho.PublishProperties{ContentType: "text/plain"},
		})
		if err != nil {
			return fmt.Errorf("reading %d: %w", i, err)
		}
	}
	return client.Disconnect(&paho.Disconnect{})
}
