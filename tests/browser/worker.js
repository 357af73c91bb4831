/**
 * A worker with a stream of its own. Import maps aren't for workers.
 */

import { Multiplex } from "./channelsmultiplexer/multiplex.js";

const stream = new Multiplex("/ws/worker/").open("echo");
stream.onmessage = ({ data }) => postMessage(data);
stream.send("from a worker");
