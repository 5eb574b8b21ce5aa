// A proxy that compresses with the middleware of Express, webpack-dev-server and Next.js.
// Its arguments are the port of the application and its own.
import { createServer, request } from "node:http";

import compression from "compression";

const [upstream, port] = process.argv.slice(2);
const compress = compression();

createServer((asked, reply) => {
  compress(asked, reply, () => {
    const options = { port: upstream, path: asked.url, headers: asked.headers };
    request(options, (response) => {
      reply.writeHead(response.statusCode, response.headers);
      response.pipe(reply);
    }).end();
  });
}).listen(port, "127.0.0.1");
