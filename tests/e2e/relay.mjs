// A relay in front of a server, whose connections can be cut for a while: to the page, the
// laptop has gone to sleep, or the network has failed.
import { connect, createServer } from "node:net";

export async function relay(url) {
  const { hostname, port } = new URL(url);
  const sockets = new Set();
  const link = {
    refused: 0,
    asleep: false,
    sleep() {
      link.asleep = true;
      for (const socket of sockets) socket.resetAndDestroy();
    },
    wake() {
      link.asleep = false;
    },
    close() {
      link.sleep();
      server.close();
    },
  };
  const server = createServer((client) => {
    if (link.asleep) {
      link.refused += 1;
      client.resetAndDestroy();
      return;
    }
    const upstream = connect(Number(port), hostname);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ]) {
      sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  link.url = `http://127.0.0.1:${server.address().port}/`;
  return link;
}
