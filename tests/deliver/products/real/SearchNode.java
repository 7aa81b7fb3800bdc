import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.http.HttpServerTransport;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.transport.Netty4Plugin;

/**
 * One node of Elasticsearch with its HTTP interface on a free port: SearchNode FOLDER. Prints the port.
 *
 * search_node.py turns the package names into those of OpenSearch, whose version 2 has the same ones.
 */
class SearchNode extends Node {
    private SearchNode(Settings settings, Path folder) {
        super(
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), folder.resolve("config"), () -> "test"),
            List.of(Netty4Plugin.class),
            false);
    }

    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(arguments[0]);
        Settings settings = Settings.builder()
            .put("cluster.name", "test")
            .put("node.name", "test")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", "0")
            .put("http.type", "netty4")
            .put("transport.port", "0")
            .put("transport.type", "netty4")
            .put("path.home", folder.toString())
            .put("path.data", folder.resolve("data").toString())
            .put("path.logs", folder.resolve("logs").toString())
            // What else runs on the machine must not make its indices read-only.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        Node node = new SearchNode(settings, folder).start();
        HttpServerTransport http = node.injector().getInstance(HttpServerTransport.class);
        System.out.println("port " + http.boundAddress().publishAddress().getPort());
        while (System.in.read() >= 0) {
            // It ends with the process that started it.
        }
        Runtime.getRuntime().halt(0);
    }
}
